"""From messages to readings: births, decoding by column and one by one."""

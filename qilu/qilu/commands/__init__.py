"""The commands of `qilu`, one module per group.

A command module imports only what every installation has. Each command imports its part when it runs, so that
`qilu --help` is quick and a service's image holds only what that service needs.
"""

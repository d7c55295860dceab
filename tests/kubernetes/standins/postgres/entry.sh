# What the official image's entry point does for a user that is not root.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  new=$PGDATA.new
  rm -rf "$new"
  initdb -D "$new" -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" -A scram-sha-256
  echo "host all all all scram-sha-256" >> "$new/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$new/postgresql.conf"
  pg_ctl -D "$new" -o "-c listen_addresses=''" -w start
  PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl -D "$new" -m fast -w stop
  mv "$new" "$PGDATA"
fi
exec postgres

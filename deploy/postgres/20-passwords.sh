#!/usr/bin/env bash
# After sql/roles.sql, on a new database: gives the two roles their passwords and the owner its database.
set -euo pipefail

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
  --set=owner_password="$OWNER_PASSWORD" --set=app_password="$APP_PASSWORD" --set=database="$POSTGRES_DB" <<'SQL'
ALTER ROLE guthi_owner PASSWORD :'owner_password';
ALTER ROLE guthi_app PASSWORD :'app_password';
ALTER DATABASE :"database" OWNER TO guthi_owner;
SQL

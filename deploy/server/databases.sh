#!/bin/sh
# Run once by the postgres image on an empty volume: the databases of Dagster and of MLflow, each with its own user.
set -eu
psql --set ON_ERROR_STOP=1 --set dagster="$DAGSTER_POSTGRES_PASSWORD" --set mlflow="$MLFLOW_POSTGRES_PASSWORD" \
  --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE USER dagster PASSWORD :'dagster';
CREATE DATABASE dagster OWNER dagster;
CREATE USER mlflow PASSWORD :'mlflow';
CREATE DATABASE mlflow OWNER mlflow;
SQL

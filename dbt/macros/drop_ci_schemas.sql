{% macro drop_ci_schemas() %}
    {%- if not target.schema.startswith('ci_') -%}
        {%- do exceptions.raise_compiler_error(
            "drop_ci_schemas drops schemas of the continuous integration only, such as ci_1234, and the target "
            ~ target.name ~ " writes to " ~ target.schema ~ ".\n  Set ORRERY_TARGET=ci and ORRERY_CI_ID."
        ) -%}
    {%- endif -%}
    {%- for row in list_schemas(target.database) -%}
        {%- set name = row if row is string else row[0] -%}
        {%- if name == target.schema or name.startswith(target.schema ~ '_') -%}
            {%- do log('Dropping ' ~ name, info=True) -%}
            {%- set schema = api.Relation.create(database=target.database, schema=name) -%}
            {%- do adapter.drop_schema(schema) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}

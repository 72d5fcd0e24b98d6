{#
    A post-hook that gives a loaded table the column `_loaded_at`: the moment of its last load.
    Source freshness reads it. The hook runs after every load, and may run again without harm.
#}
{% macro stamp_loaded_at(relation) %}

    {{ return(adapter.dispatch('stamp_loaded_at', 'orrery_demo')(relation)) }}

{% endmacro %}


{#
    For any warehouse: rows arrive without a stamp, and get theirs from an update.
#}
{% macro default__stamp_loaded_at(relation) %}

    {% do run_query(
        'alter table ' ~ relation ~ ' add column if not exists _loaded_at ' ~ dbt.type_timestamp()
    ) %}

    update {{ relation }}
    set _loaded_at = {{ dbt.current_timestamp() }}
    where _loaded_at is null

{% endmacro %}


{#
    For PostgreSQL: `dbt seed` truncates a table and inserts into it, so that the default of the
    column stamps every load after the first.
#}
{% macro postgres__stamp_loaded_at(relation) %}

    alter table {{ relation }}
    add column if not exists _loaded_at timestamp with time zone not null default now()

{% endmacro %}

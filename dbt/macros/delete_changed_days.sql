{#
    A pre-hook for models that are built by day from events. What is inserted afterwards meets no
    row of a day as it was before.
#}
{% macro delete_changed_days(relation) %}

    {% if is_incremental() %}

        delete from {{ this }}
        where
            activity_date in (
                select gone.activity_date
                from (
                    {{ event_days(this, 'sum(event_count)') }}
                    {{ dbt.except() }}
                    {{ event_days(relation) }}
                ) as gone
            )

    {% endif %}

{% endmacro %}

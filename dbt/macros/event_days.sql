{#
    The days of events, or of what is made of them, with what tells whether a day has changed.
#}
{% macro event_days(relation, event_count='count(*)') -%}
    select
        activity_date,
        {{ event_count }} as event_count,
        max(loaded_at) as loaded_at
    from {{ relation }}
    group by activity_date
{%- endmacro %}

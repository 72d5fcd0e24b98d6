{% set label_days = var('label_days') %}
{# on BigQuery it is a datetime #}
{% set label_until = dbt.cast(
    dbt.dateadd('day', label_days, 'users.signed_up_at'), dbt.type_timestamp()
) %}
{% set minutes = dbt.datediff('behaviour.first_seen_at', 'users.signed_up_at', 'minute') %}

with

events as (

    select * from {{ ref('int_events__deduplicated') }}

),

visitors as (

    select * from {{ ref('int_visitors__identified') }}

),

users as (

    select * from {{ ref('int_users__signed_up') }}

),

collected as (

    select max(received_at) as collected_until_at

    from events

),

-- up to the sign-up and no further: what comes later is not known when the model is asked
behaviour as (

    select

        users.user_id,
        sum(case when events.event_kind = 'page_view' then 1 else 0 end) as page_view_count,
        sum(
            case
                when events.page_path like '/products/%' or events.page_path = '/pricing' then 1
                else 0
            end
        ) as product_view_count,
        count(distinct events.activity_date) as active_day_count,
        min(events.occurred_at) as first_seen_at

    from users

    inner join visitors
        on users.user_id = visitors.user_id

    inner join events
        on
            visitors.anonymous_id = events.anonymous_id
            and users.signed_up_at >= events.occurred_at

    group by users.user_id

),

-- of several devices, the one that the user came with first
origins as (

    select

        user_id,
        first_traffic_source,
        first_device_kind,
        row_number() over (
            partition by user_id
            order by first_seen_at, anonymous_id
        ) as device_number

    from visitors

    where user_id is not null

)

select

    ---------- ids
    users.user_id,

    ---------- text
    origins.first_traffic_source as traffic_source,
    origins.first_device_kind as device_kind,

    ---------- numerics
    cast(behaviour.page_view_count as {{ dbt.type_int() }}) as page_view_count,
    cast(behaviour.product_view_count as {{ dbt.type_int() }}) as product_view_count,
    cast(behaviour.active_day_count as {{ dbt.type_int() }}) as active_day_count,
    cast({{ minutes }} as {{ dbt.type_int() }}) as minutes_to_sign_up,

    ---------- booleans
    {{ label_until }} <= collected.collected_until_at
        as is_label_final,
    coalesce(users.first_purchased_at <= {{ label_until }}, false) as has_bought,

    ---------- timestamps
    users.signed_up_at

from users

inner join behaviour
    on users.user_id = behaviour.user_id

inner join origins
    on
        users.user_id = origins.user_id
        and origins.device_number = 1

cross join collected

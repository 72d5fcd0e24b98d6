with

events as (

    select * from {{ ref('int_events__deduplicated') }}

),

numbered as (

    select

        *,
        row_number() over (
            partition by anonymous_id
            order by occurred_at, event_key
        ) as event_number

    from events

)

select

    ---------- ids
    anonymous_id,
    max(user_id) as user_id,
    coalesce(max(user_id), anonymous_id) as person_id,

    ---------- text
    max(case when event_number = 1 then traffic_source end) as first_traffic_source,
    max(case when event_number = 1 then device_kind end) as first_device_kind,

    ---------- dates
    min(activity_date) as first_seen_date,

    ---------- timestamps
    min(occurred_at) as first_seen_at,
    min(
        case when page_path like '/products/%' or page_path = '/pricing' then occurred_at end
    ) as first_product_view_at

from numbered

group by anonymous_id

{{
    config(
        materialized='incremental',
        unique_key='event_key',
        partition_by={'field': 'activity_date'} if target.type == 'bigquery' else none,
        cluster_by='event_key' if target.type == 'bigquery' else none,
        pre_hook="{{ delete_gone_rows(ref('stg_events__events'), 'event_key') }}",
    )
}}

with

events as (

    select * from {{ ref('stg_events__events') }}

),

numbered as (

    select

        *,
        row_number() over (
            partition by event_key
            order by received_at, event_id
        ) as reception_number

    from events

    {% if is_incremental() %}

        -- with what was received of these events before, or the last to come would win
        where
            event_key in (
                select fresh.event_key
                from events as fresh
                where fresh.loaded_at >= {{ load_watermark(this, 'loaded_at') }}
            )

    {% endif %}

)

select

    ---------- ids
    event_key,
    event_id,
    anonymous_id,
    user_id,

    ---------- text
    event_kind,
    traffic_source,
    device_kind,
    page_path,

    ---------- numerics
    purchase_amount,

    ---------- booleans
    is_late,

    ---------- dates
    activity_date,

    ---------- timestamps
    occurred_at,
    received_at,
    loaded_at

from numbered

where reception_number = 1

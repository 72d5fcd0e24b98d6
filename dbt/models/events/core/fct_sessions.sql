{{
    config(
        materialized='incremental',
        unique_key='activity_date',
        partition_by={'field': 'activity_date'} if target.type == 'bigquery' else none,
        pre_hook="{{ delete_changed_days(ref('int_events__deduplicated')) }}",
    )
}}

{% set silent = dbt.datediff('previous_occurred_at', 'occurred_at', 'second') %}
{% set duration = dbt.datediff('started_at', 'ended_at', 'second') %}

with

events as (

    select * from {{ ref('int_events__deduplicated') }}

    {% if is_incremental() %}

        -- by day: an event that comes late may join two visits, and changes no other day
        where
            activity_date in (
                select changed.activity_date
                from (
                    {{ event_days(ref('int_events__deduplicated')) }}
                    {{ dbt.except() }}
                    {{ event_days(this, 'sum(event_count)') }}
                ) as changed
            )

    {% endif %}

),

followed as (

    select

        *,
        lag(occurred_at) over (
            partition by activity_date, anonymous_id
            order by occurred_at, event_key
        ) as previous_occurred_at

    from events

),

numbered as (

    select

        *,
        sum(
            case
                when
                    previous_occurred_at is null
                    or {{ silent }} > 60 * {{ var('session_gap_minutes') }}
                    then 1
                else 0
            end
        ) over (
            partition by activity_date, anonymous_id
            order by occurred_at, event_key
            rows between unbounded preceding and current row
        ) as session_number

    from followed

),

ordered as (

    select

        *,
        row_number() over (
            partition by activity_date, anonymous_id, session_number
            order by occurred_at, event_key
        ) as event_number

    from numbered

),

aggregated as (

    select

        activity_date,
        anonymous_id,
        session_number,
        max(user_id) as user_id,
        max(case when event_number = 1 then traffic_source end) as traffic_source,
        max(case when event_number = 1 then device_kind end) as device_kind,
        max(case when event_number = 1 then page_path end) as landing_path,
        count(*) as event_count,
        sum(case when event_kind = 'page_view' then 1 else 0 end) as page_view_count,
        sum(case when event_kind = 'purchase' then 1 else 0 end) as purchase_count,
        sum(case when event_kind = 'purchase' then purchase_amount else 0 end) as purchase_amount,
        sum(case when event_kind = 'sign_up' then 1 else 0 end) as sign_up_count,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        max(loaded_at) as loaded_at

    from ordered

    group by
        activity_date,
        anonymous_id,
        session_number

)

select

    ---------- ids
    {{ surrogate_key(['activity_date', 'anonymous_id', 'session_number']) }} as session_id,
    anonymous_id,
    user_id,

    ---------- text
    traffic_source,
    device_kind,
    landing_path,

    ---------- numerics
    cast(event_count as {{ dbt.type_int() }}) as event_count,
    cast(page_view_count as {{ dbt.type_int() }}) as page_view_count,
    cast(purchase_count as {{ dbt.type_int() }}) as purchase_count,
    purchase_amount,
    cast({{ duration }} as {{ dbt.type_int() }}) as duration_seconds,

    ---------- booleans
    sign_up_count > 0 as is_sign_up,

    ---------- dates
    activity_date,

    ---------- timestamps
    started_at,
    ended_at,
    loaded_at

from aggregated

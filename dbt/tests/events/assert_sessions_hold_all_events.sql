with

received as (

    select * from {{ ref('stg_events__events') }}

),

sessions as (

    select * from {{ ref('fct_sessions') }}

),

received_by_day as (

    select

        activity_date,
        count(distinct event_key) as event_count

    from received

    group by activity_date

),

sessions_by_day as (

    select

        activity_date,
        sum(event_count) as event_count

    from sessions

    group by activity_date

)

select

    coalesce(received_by_day.activity_date, sessions_by_day.activity_date) as activity_date,
    received_by_day.event_count as received_count,
    sessions_by_day.event_count as session_event_count

from received_by_day

full outer join sessions_by_day
    on received_by_day.activity_date = sessions_by_day.activity_date

where coalesce(received_by_day.event_count, 0) <> coalesce(sessions_by_day.event_count, 0)

with

events as (

    select * from {{ ref('int_events__deduplicated') }}

    where user_id is not null

),

aggregated as (

    select

        user_id,
        min(case when event_kind = 'sign_up' then occurred_at end) as signed_up_at,
        min(case when event_kind = 'purchase' then occurred_at end) as first_purchased_at

    from events

    group by user_id

)

select

    ---------- ids
    user_id,

    ---------- timestamps
    signed_up_at,
    first_purchased_at

from aggregated

-- who had signed up before there were events is not here
where signed_up_at is not null

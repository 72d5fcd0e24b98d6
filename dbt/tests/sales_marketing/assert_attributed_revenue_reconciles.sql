with

opportunities as (

    select * from {{ ref('fct_opportunities') }}

),

attributed_revenue as (

    select * from {{ ref('fct_attributed_revenue') }}

),

won as (

    select coalesce(sum(opportunity_amount), 0) as won_amount

    from opportunities

    where is_won

),

attributed as (

    select

        coalesce(sum(first_touch_amount), 0) as first_touch_amount,
        coalesce(sum(last_touch_amount), 0) as last_touch_amount,
        coalesce(sum(linear_amount), 0) as linear_amount

    from attributed_revenue

)

select

    won.won_amount,
    attributed.first_touch_amount,
    attributed.last_touch_amount,
    attributed.linear_amount

from won

cross join attributed

where
    won.won_amount <> attributed.first_touch_amount
    or won.won_amount <> attributed.last_touch_amount
    or won.won_amount <> attributed.linear_amount

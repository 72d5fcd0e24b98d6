with

clicks as (

    select * from {{ ref('stg_affiliates__clicks') }}

),

conversions as (

    select * from {{ ref('fct_conversions') }}

),

-- one below the other: a day may have clicks without orders, and orders without clicks
events as (

    select

        partner_id,
        clicked_date as activity_date,
        1 as click_count,
        0 as conversion_count,
        0 as order_amount,
        0 as commission_amount

    from clicks

    union all

    select

        partner_id,
        converted_date as activity_date,
        0 as click_count,
        1 as conversion_count,
        order_amount,
        commission_amount

    from conversions

    where conversion_status <> 'rejected'

),

aggregated as (

    select

        partner_id,
        activity_date,
        sum(click_count) as click_count,
        sum(conversion_count) as conversion_count,
        sum(order_amount) as order_amount,
        sum(commission_amount) as commission_amount

    from events

    group by
        partner_id,
        activity_date

)

select

    ---------- ids
    {{ surrogate_key(['partner_id', 'activity_date']) }} as partner_day_id,
    partner_id,

    ---------- numerics
    cast(click_count as {{ dbt.type_int() }}) as click_count,
    cast(conversion_count as {{ dbt.type_int() }}) as conversion_count,
    order_amount,
    commission_amount,

    ---------- dates
    activity_date

from aggregated

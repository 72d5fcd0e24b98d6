with

conversions as (

    select * from {{ ref('fct_conversions') }}

),

partner_days as (

    select * from {{ ref('fct_partner_days') }}

),

totals as (

    select

        (
            select coalesce(sum(commission_amount), 0)
            from conversions
        ) as conversions_amount,
        (
            select coalesce(sum(commission_amount), 0)
            from partner_days
        ) as partner_days_amount

)

select

    conversions_amount,
    partner_days_amount

from totals

where conversions_amount <> partner_days_amount

with

synced as (

    select * from {{ ref('stg_sales_marketing__ad_spend') }}

),

acquisition_costs as (

    select * from {{ ref('fct_acquisition_costs') }}

),

totals as (

    select

        (
            select coalesce(sum(spend_amount), 0)
            from synced
        ) as synced_amount,
        (
            select coalesce(sum(spend_amount), 0)
            from acquisition_costs
        ) as costs_amount

)

select

    synced_amount,
    costs_amount

from totals

where synced_amount <> costs_amount

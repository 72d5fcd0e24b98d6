with

campaign_costs as (

    select * from {{ ref('fct_campaign_costs') }}

),

campaign_profits as (

    select * from {{ ref('fct_campaign_profits') }}

),

totals as (

    select

        (
            select coalesce(sum(cost_amount), 0)
            from campaign_costs
        ) as costs_amount,
        (
            select coalesce(sum(cost_amount), 0)
            from campaign_profits
        ) as profits_amount

)

select

    costs_amount,
    profits_amount

from totals

where costs_amount <> profits_amount

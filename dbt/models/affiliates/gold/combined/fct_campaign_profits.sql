with

campaign_costs as (

    select * from {{ ref('fct_campaign_costs') }}

),

conversions as (

    select * from {{ ref('fct_conversions') }}

),

-- one below the other: a campaign may cost without an order, and an order may come when it is over
events as (

    select

        campaign_id,
        report_date as activity_date,
        visit_count,
        cost_amount,
        0 as conversion_count,
        0 as commission_amount

    from campaign_costs

    union all

    select

        campaign_id,
        converted_date as activity_date,
        0 as visit_count,
        0 as cost_amount,
        1 as conversion_count,
        commission_amount

    from conversions

    where
        campaign_id is not null
        and conversion_status <> 'rejected'

),

aggregated as (

    select

        campaign_id,
        activity_date,
        sum(visit_count) as visit_count,
        sum(cost_amount) as cost_amount,
        sum(conversion_count) as conversion_count,
        sum(commission_amount) as commission_amount

    from events

    group by
        campaign_id,
        activity_date

)

select

    ---------- ids
    {{ surrogate_key(['campaign_id', 'activity_date']) }} as campaign_profit_id,
    campaign_id,

    ---------- numerics
    cast(visit_count as {{ dbt.type_int() }}) as visit_count,
    cast(conversion_count as {{ dbt.type_int() }}) as conversion_count,
    cost_amount,
    commission_amount,
    commission_amount - cost_amount as profit_amount,

    ---------- dates
    activity_date

from aggregated

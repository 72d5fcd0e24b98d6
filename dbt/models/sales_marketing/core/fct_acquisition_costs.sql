with

ad_spend as (

    select * from {{ ref('fct_ad_spend') }}

),

campaigns as (

    select * from {{ ref('stg_sales_marketing__campaigns') }}

),

first_wins as (

    select * from {{ ref('fct_opportunities') }}

    where is_first_win

),

-- one below the other: a month may cost without a new customer, and the other way round
events as (

    select

        cast({{ dbt.date_trunc('month', 'ad_spend.spend_date') }} as date) as acquisition_month,
        coalesce(campaigns.channel, 'other') as channel,
        ad_spend.spend_amount,
        0 as new_customer_count,
        0 as won_amount

    from ad_spend

    left join campaigns
        on ad_spend.campaign_id = campaigns.campaign_id

    union all

    select

        cast({{ dbt.date_trunc('month', 'closed_date') }} as date) as acquisition_month,
        first_channel as channel,
        0 as spend_amount,
        1 as new_customer_count,
        coalesce(opportunity_amount, 0) as won_amount

    from first_wins

),

aggregated as (

    select

        acquisition_month,
        channel,
        sum(spend_amount) as spend_amount,
        sum(new_customer_count) as new_customer_count,
        sum(won_amount) as won_amount

    from events

    group by
        acquisition_month,
        channel

)

select

    ---------- ids
    {{ surrogate_key(['acquisition_month', 'channel']) }} as acquisition_cost_id,

    ---------- text
    channel,

    ---------- numerics
    spend_amount,
    cast(new_customer_count as {{ dbt.type_int() }}) as new_customer_count,
    won_amount,
    cast(round(spend_amount / nullif(new_customer_count, 0), 2) as numeric(28, 2))
        as cost_per_customer_amount,

    ---------- dates
    acquisition_month

from aggregated

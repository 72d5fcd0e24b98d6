{% set days = dbt.datediff('responses.responded_at', 'opportunities.created_at', 'day') %}

with

opportunities as (

    select * from {{ ref('stg_sales_marketing__opportunities') }}

),

responses as (

    select * from {{ ref('int_responses__matched_to_campaigns') }}

),

-- of all people at the company: who signs is seldom who clicked
touches as (

    select

        opportunities.opportunity_id,
        responses.response_id,
        responses.account_id,
        responses.campaign_id,
        responses.channel,
        responses.responded_at

    from opportunities

    inner join responses
        on
            opportunities.account_id = responses.account_id
            and opportunities.created_at >= responses.responded_at
            and {{ days }} <= {{ var('attribution_days') }}

),

numbered as (

    select

        *,
        row_number() over (
            partition by opportunity_id
            order by responded_at, response_id
        ) as touch_number,
        count(*) over (partition by opportunity_id) as touch_count

    from touches

)

select

    ---------- ids
    {{ surrogate_key(['opportunity_id', 'response_id']) }} as touch_id,
    opportunity_id,
    response_id,
    account_id,
    campaign_id,

    ---------- text
    channel,

    ---------- numerics
    touch_number,
    touch_count,

    ---------- timestamps
    responded_at

from numbered

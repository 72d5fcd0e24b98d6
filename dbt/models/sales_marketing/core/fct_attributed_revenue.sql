with

opportunities as (

    select * from {{ ref('fct_opportunities') }}

    where is_won

),

touches as (

    select * from {{ ref('int_touches__before_opportunities') }}

),

joined as (

    select

        opportunities.opportunity_id,
        opportunities.account_id,
        opportunities.closed_date,
        coalesce(opportunities.opportunity_amount, 0) as won_amount,
        touches.response_id,
        touches.campaign_id,
        coalesce(touches.channel, 'unattributed') as channel,
        coalesce(touches.touch_number, 1) as touch_number,
        coalesce(touches.touch_count, 1) as touch_count

    from opportunities

    left join touches
        on opportunities.opportunity_id = touches.opportunity_id

),

shared as (

    select

        *,
        cast(round(won_amount / touch_count, 2) as numeric(28, 2)) as share_amount

    from joined

)

select

    ---------- ids
    {{ surrogate_key(['opportunity_id', 'response_id']) }} as attributed_revenue_id,
    opportunity_id,
    account_id,
    response_id,
    campaign_id,

    ---------- text
    channel,

    ---------- numerics
    cast(touch_number as {{ dbt.type_int() }}) as touch_number,
    cast(touch_count as {{ dbt.type_int() }}) as touch_count,
    case when touch_number = 1 then won_amount else 0 end as first_touch_amount,
    case when touch_number = touch_count then won_amount else 0 end as last_touch_amount,
    -- the last share takes what rounding has left
    case
        when touch_number = touch_count then won_amount - share_amount * (touch_count - 1)
        else share_amount
    end as linear_amount,

    ---------- dates
    closed_date

from shared

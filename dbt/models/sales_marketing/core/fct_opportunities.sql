with

opportunities as (

    select * from {{ ref('stg_sales_marketing__opportunities') }}

),

-- what is left of deleted companies is not counted
accounts as (

    select * from {{ ref('stg_sales_marketing__accounts') }}

),

contacts as (

    select * from {{ ref('int_contacts__merged') }}

),

touches as (

    select * from {{ ref('int_touches__before_opportunities') }}

),

joined as (

    select

        opportunities.*,
        contacts.person_id,
        coalesce(first_touches.touch_count, 0) as touch_count,
        coalesce(first_touches.channel, 'unattributed') as first_channel,
        coalesce(last_touches.channel, 'unattributed') as last_channel

    from opportunities

    inner join accounts
        on opportunities.account_id = accounts.account_id

    left join contacts
        on opportunities.contact_id = contacts.contact_id

    left join touches as first_touches
        on
            opportunities.opportunity_id = first_touches.opportunity_id
            and first_touches.touch_number = 1

    left join touches as last_touches
        on
            opportunities.opportunity_id = last_touches.opportunity_id
            and last_touches.touch_number = last_touches.touch_count

),

numbered as (

    select

        *,
        case
            when opportunity_stage = 'won'
                then
                    row_number() over (
                        partition by account_id, opportunity_stage
                        order by closed_date, opportunity_id
                    )
        end as win_number

    from joined

)

select

    ---------- ids
    opportunity_id,
    account_id,
    person_id,

    ---------- text
    opportunity_stage,
    first_channel,
    last_channel,

    ---------- numerics
    opportunity_amount,
    cast(touch_count as {{ dbt.type_int() }}) as touch_count,
    {{ dbt.datediff('created_date', 'closed_date', 'day') }} as days_to_close,

    ---------- booleans
    is_closed,
    opportunity_stage = 'won' as is_won,
    coalesce(win_number = 1, false) as is_first_win,

    ---------- dates
    created_date,
    closed_date,
    expected_close_date

from numbered

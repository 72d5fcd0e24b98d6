{% set seconds = dbt.datediff('previous_responded_at', 'responded_at', 'second') %}

with

responses as (

    select * from {{ ref('stg_sales_marketing__campaign_responses') }}

),

contacts as (

    select * from {{ ref('int_contacts__merged') }}

),

campaigns as (

    select * from {{ ref('stg_sales_marketing__campaigns') }}

),

joined as (

    select

        responses.*,
        contacts.person_id,
        contacts.account_id,
        campaigns.campaign_id,
        coalesce(
            campaigns.channel,
            case responses.medium when 'paid' then 'other' else responses.medium end
        ) as channel,
        lag(responses.responded_at) over (
            partition by
                responses.contact_id,
                coalesce(responses.campaign_key, ''),
                responses.medium
            order by responses.responded_at, responses.response_id
        ) as previous_responded_at

    from responses

    inner join contacts
        on responses.contact_id = contacts.contact_id

    left join campaigns
        on
            responses.campaign_key = campaigns.campaign_key
            and responses.medium = 'paid'

)

select

    ---------- ids
    response_id,
    person_id,
    account_id,
    campaign_id,

    ---------- text
    channel,

    ---------- timestamps
    responded_at

from joined

-- a second click within a minute is the same answer
where
    previous_responded_at is null
    or {{ seconds }} >= 60

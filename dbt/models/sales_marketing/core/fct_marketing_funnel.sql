with

contacts as (

    select * from {{ ref('int_contacts__merged') }}

),

responses as (

    select * from {{ ref('int_responses__matched_to_campaigns') }}

),

opportunities as (

    select * from {{ ref('fct_opportunities') }}

),

numbered_responses as (

    select

        person_id,
        channel,
        row_number() over (
            partition by person_id
            order by responded_at, response_id
        ) as response_number,
        count(*) over (partition by person_id) as response_count

    from responses

),

opportunities_by_person as (

    select

        person_id,
        max(case when is_won then 1 else 0 end) as won

    from opportunities

    where person_id is not null

    group by person_id

),

joined as (

    select

        cast({{ dbt.date_trunc('month', 'contacts.created_at') }} as date) as cohort_month,
        coalesce(numbered_responses.channel, 'unattributed') as channel,
        case when numbered_responses.response_count >= 2 then 1 else 0 end as engaged,
        case when opportunities_by_person.person_id is not null then 1 else 0 end as in_talks,
        coalesce(opportunities_by_person.won, 0) as won

    from contacts

    left join numbered_responses
        on
            contacts.person_id = numbered_responses.person_id
            and numbered_responses.response_number = 1

    left join opportunities_by_person
        on contacts.person_id = opportunities_by_person.person_id

    where contacts.is_first_of_person

),

aggregated as (

    select

        cohort_month,
        channel,
        count(*) as contact_count,
        sum(engaged) as engaged_count,
        sum(in_talks) as opportunity_count,
        sum(won) as customer_count

    from joined

    group by
        cohort_month,
        channel

)

select

    ---------- ids
    {{ surrogate_key(['cohort_month', 'channel']) }} as marketing_funnel_id,

    ---------- text
    channel,

    ---------- numerics
    cast(contact_count as {{ dbt.type_int() }}) as contact_count,
    cast(engaged_count as {{ dbt.type_int() }}) as engaged_count,
    cast(opportunity_count as {{ dbt.type_int() }}) as opportunity_count,
    cast(customer_count as {{ dbt.type_int() }}) as customer_count,
    cast(round(100.0 * customer_count / contact_count, 2) as numeric(28, 2))
        as customer_percent,

    ---------- dates
    cohort_month

from aggregated

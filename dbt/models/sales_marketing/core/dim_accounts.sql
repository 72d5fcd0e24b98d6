with

accounts as (

    select * from {{ ref('stg_sales_marketing__accounts') }}

),

contacts as (

    select * from {{ ref('int_contacts__merged') }}

),

opportunities as (

    select * from {{ ref('fct_opportunities') }}

),

contacts_by_account as (

    select

        account_id,
        count(distinct person_id) as person_count

    from contacts

    group by account_id

),

opportunities_by_account as (

    select

        account_id,
        count(*) as opportunity_count,
        sum(case when is_won then opportunity_amount else 0 end) as won_amount,
        min(case when is_won then closed_date end) as customer_since_date

    from opportunities

    group by account_id

),

joined as (

    select

        accounts.*,
        coalesce(contacts_by_account.person_count, 0) as person_count,
        coalesce(opportunities_by_account.opportunity_count, 0) as opportunity_count,
        coalesce(opportunities_by_account.won_amount, 0) as won_amount,
        opportunities_by_account.customer_since_date

    from accounts

    left join contacts_by_account
        on accounts.account_id = contacts_by_account.account_id

    left join opportunities_by_account
        on accounts.account_id = opportunities_by_account.account_id

)

select

    ---------- ids
    account_id,

    ---------- text
    account_name,
    industry,
    country_code,

    ---------- numerics
    employee_count,
    cast(person_count as {{ dbt.type_int() }}) as person_count,
    cast(opportunity_count as {{ dbt.type_int() }}) as opportunity_count,
    won_amount,

    ---------- booleans
    customer_since_date is not null as is_customer,

    ---------- dates
    customer_since_date,

    ---------- timestamps
    created_at

from joined

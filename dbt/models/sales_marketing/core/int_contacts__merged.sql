with

contacts as (

    select * from {{ ref('stg_sales_marketing__contacts') }}

),

accounts as (

    select * from {{ ref('stg_sales_marketing__accounts') }}

),

merged as (

    select

        contacts.*,
        first_value(contacts.contact_id) over (
            partition by contacts.email
            order by contacts.created_at, contacts.contact_id
        ) as person_id

    from contacts

    -- nobody is left at a company that was deleted
    inner join accounts
        on contacts.account_id = accounts.account_id

)

select

    ---------- ids
    contact_id,
    person_id,
    account_id,

    ---------- text
    email,
    job_title,

    ---------- booleans
    contact_id = person_id as is_first_of_person,

    ---------- timestamps
    created_at

from merged

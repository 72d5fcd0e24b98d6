with

landed as (

    select * from {{ ref('stg_forex__transactions') }}

),

transactions as (

    select * from {{ ref('fct_transactions') }}

)

select

    landed.transaction_id,
    landed.revision_number as landed_revision_number,
    transactions.revision_number

from landed

left join transactions
    on landed.transaction_id = transactions.transaction_id

where
    transactions.transaction_id is null
    or transactions.revision_number <> landed.revision_number

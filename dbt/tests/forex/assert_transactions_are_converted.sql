{{ config(severity='warn') }}

with

transactions as (

    select * from {{ ref('fct_transactions') }}

)

select

    transaction_id,
    currency_code,
    transaction_amount,
    booked_date

from transactions

where net_amount_eur is null

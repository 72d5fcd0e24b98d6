{{ config(severity='warn') }}

with

conversions as (

    select * from {{ ref('fct_conversions') }}

)

select

    conversion_id,
    partner_id,
    order_amount,
    converted_date

from conversions

where
    conversion_status <> 'rejected'
    and deal_id is null

with

transactions as (

    select * from {{ ref('fct_transactions') }}

),

aggregated as (

    select

        customer_id,
        count(*) as transaction_count,
        count(distinct currency_code) as currency_count,
        sum(case when units_per_eur is null then 1 else 0 end) as unconverted_transaction_count,
        coalesce(sum(net_amount_eur), 0) as net_amount_eur,
        min(booked_date) as first_booked_date,
        max(booked_date) as last_booked_date

    from transactions

    group by customer_id

)

select

    ---------- ids
    customer_id,

    ---------- numerics
    cast(transaction_count as {{ dbt.type_int() }}) as transaction_count,
    cast(currency_count as {{ dbt.type_int() }}) as currency_count,
    cast(unconverted_transaction_count as {{ dbt.type_int() }}) as unconverted_transaction_count,
    net_amount_eur,

    ---------- dates
    first_booked_date,
    last_booked_date

from aggregated

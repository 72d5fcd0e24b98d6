with

transactions as (

    select * from {{ ref('fct_transactions') }}

),

-- without a rate there is no amount in euro, and neither is there zero
aggregated as (

    select

        booked_date as turnover_date,
        currency_code,
        count(*) as transaction_count,
        sum(case when is_reversed then 1 else 0 end) as reversed_transaction_count,
        sum(case when net_amount > 0 then net_amount else 0 end) as credit_amount,
        sum(case when net_amount < 0 then -net_amount else 0 end) as debit_amount,
        sum(
            case
                when net_amount > 0 then net_amount_eur
                when net_amount_eur is not null then 0
            end
        ) as credit_amount_eur,
        sum(
            case
                when net_amount < 0 then -net_amount_eur
                when net_amount_eur is not null then 0
            end
        ) as debit_amount_eur

    from transactions

    group by
        booked_date,
        currency_code

)

select

    ---------- ids
    {{ surrogate_key(['turnover_date', 'currency_code']) }} as daily_turnover_id,

    ---------- text
    currency_code,

    ---------- numerics
    cast(transaction_count as {{ dbt.type_int() }}) as transaction_count,
    cast(reversed_transaction_count as {{ dbt.type_int() }}) as reversed_transaction_count,
    credit_amount,
    debit_amount,
    credit_amount - debit_amount as net_amount,
    credit_amount_eur,
    debit_amount_eur,
    credit_amount_eur - debit_amount_eur as net_amount_eur,

    ---------- dates
    turnover_date

from aggregated

with

transactions as (

    select * from {{ ref('fct_transactions') }}

),

daily_turnover as (

    select * from {{ ref('fct_daily_turnover') }}

),

totals as (

    select

        (
            select sum(net_amount_eur)
            from transactions
        ) as transactions_eur,
        (
            select sum(net_amount_eur)
            from daily_turnover
        ) as daily_turnover_eur

)

select

    transactions_eur,
    daily_turnover_eur

from totals

where transactions_eur <> daily_turnover_eur

with

reference_rates as (

    select * from {{ ref('stg_forex__reference_rates') }}

),

spanned as (

    select

        currency_code,
        units_per_eur,
        rate_date,
        rate_date as valid_from_date,
        lead(rate_date) over (
            partition by currency_code
            order by rate_date
        ) as valid_until_date,
        loaded_at

    from reference_rates

),

-- the euro needs no rate, and gets one so that amounts in euro are converted like all others
euro as (

    select

        'EUR' as currency_code,
        cast(1 as {{ dbt.type_numeric() }}) as units_per_eur,
        cast(null as date) as rate_date,
        cast('1999-01-01' as date) as valid_from_date,
        cast(null as date) as valid_until_date,
        cast(null as {{ dbt.type_timestamp() }}) as loaded_at

),

combined as (

    select * from spanned

    union all

    select * from euro

)

select

    ---------- ids
    {{ surrogate_key(['currency_code', 'valid_from_date']) }} as rate_span_id,

    ---------- text
    currency_code,

    ---------- numerics
    units_per_eur,

    ---------- dates
    rate_date,
    valid_from_date,
    valid_until_date,

    ---------- timestamps
    loaded_at

from combined

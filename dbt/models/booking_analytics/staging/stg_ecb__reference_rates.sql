with

source as (

    select * from {{ source('ecb', 'reference_rates') }}

),

renamed as (

    select

        ---------- ids
        {{ surrogate_key(['currency', 'rate_date']) }} as reference_rate_id,

        ---------- text
        upper(trim(currency)) as currency_code,

        ---------- numerics
        cast(rate as {{ dbt.type_numeric() }}) as units_per_eur,

        ---------- dates
        rate_date

    from source

)

select * from renamed

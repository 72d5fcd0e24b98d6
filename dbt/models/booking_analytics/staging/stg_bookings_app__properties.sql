with

source as (

    select * from {{ source('bookings_app', 'properties') }}

),

renamed as (

    select

        ---------- ids
        id as property_id,

        ---------- text
        trim(name) as property_name,
        lower(trim(kind)) as property_kind,
        trim(city) as city,
        upper(trim(country)) as country_code,
        upper(trim(currency)) as currency_code,

        ---------- numerics
        bedrooms as bedroom_count,
        {{ minor_units_to_amount('nightly_rate_minor') }} as nightly_rate,

        ---------- dates
        listed_on as listed_date

    from source

)

select * from renamed

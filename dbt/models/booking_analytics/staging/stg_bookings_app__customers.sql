with

source as (

    select * from {{ source('bookings_app', 'customers') }}

),

renamed as (

    select

        ---------- ids
        id as customer_id,

        ---------- text
        trim(full_name) as customer_name,
        lower(trim(email)) as email,
        upper(trim(country)) as country_code,

        ---------- booleans
        marketing_opt_in as is_marketing_allowed,

        ---------- timestamps
        created_at as signed_up_at

    from source

)

select * from renamed

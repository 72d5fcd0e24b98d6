{{ config(materialized='view') }}

with

source as (

    select * from {{ source('affiliates', 'partners') }}

),

renamed as (

    select

        ---------- ids
        partner_id,

        ---------- text
        trim(name) as partner_name,
        upper(trim(country)) as country_code,
        lower(trim(network)) as network_name,
        lower(trim(category)) as partner_category

    from source

)

select * from renamed

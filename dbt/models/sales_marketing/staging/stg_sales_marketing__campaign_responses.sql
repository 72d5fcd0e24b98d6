with

source as (

    select * from {{ source('sales_marketing', 'crm_campaign_responses') }}

),

renamed as (

    select

        ---------- ids
        response_id,
        contact_id,

        ---------- text
        {{ campaign_key('utm_campaign') }} as campaign_key,
        coalesce(nullif(lower(trim(utm_medium)), ''), 'direct') as medium,

        ---------- timestamps
        cast(responded_at as {{ dbt.type_timestamp() }}) as responded_at

    from source

)

select * from renamed

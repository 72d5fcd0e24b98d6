with

source as (

    select * from {{ source('sales_marketing', 'crm_contacts') }}

    where not is_deleted

),

renamed as (

    select

        ---------- ids
        contact_id,
        account_id,

        ---------- text
        lower(trim(email)) as email,
        nullif(trim(job_title), '') as job_title,

        ---------- timestamps
        cast(created_at as {{ dbt.type_timestamp() }}) as created_at

    from source

)

select * from renamed

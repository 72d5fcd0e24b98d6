with

source as (

    select * from {{ source('sales_marketing', 'crm_accounts') }}

),

trimmed as (

    select

        *,
        upper(trim(country)) as country_written,
        nullif(replace(replace(trim(employees), ',', ''), '-', ''), '') as employees_written

    from source

    -- what was deleted, and what salespeople have made to try out the CRM
    where
        not is_deleted
        and not upper(name) like 'TEST %'

),

renamed as (

    select

        ---------- ids
        account_id,

        ---------- text
        trim(name) as account_name,
        lower(trim(industry)) as industry,
        case
            when country_written in ('DE', 'GERMANY', 'DEUTSCHLAND') then 'DE'
            when country_written in ('ES', 'SPAIN') then 'ES'
            when country_written in ('FR', 'FRANCE') then 'FR'
            when country_written in ('GB', 'UK', 'UNITED KINGDOM') then 'GB'
            when country_written in ('SE', 'SWEDEN') then 'SE'
        end as country_code,

        ---------- numerics
        {{ dbt.safe_cast("nullif(lower(employees_written), 'n/a')", dbt.type_int()) }}
            as employee_count,

        ---------- timestamps
        cast(created_at as {{ dbt.type_timestamp() }}) as created_at

    from trimmed

)

select * from renamed

with

source as (

    select * from {{ source('sales_marketing', 'crm_opportunities') }}

    where not is_deleted

),

cleaned as (

    select

        *,
        -- Closed - Won, closed won and Closed Won are the same
        replace(replace(replace(lower(trim(stage)), '-', ' '), '  ', ' '), '  ', ' ')
            as stage_written,
        nullif(trim(replace(replace(upper(amount), 'EUR', ''), ',', '')), '') as amount_written

    from source

),

staged as (

    select

        *,
        case
            when stage_written = 'closed won' then 'won'
            when stage_written = 'closed lost' then 'lost'
            when stage_written = 'sql' then 'qualified'
            else stage_written
        end as opportunity_stage

    from cleaned

),

renamed as (

    select

        ---------- ids
        opportunity_id,
        account_id,
        contact_id,

        ---------- text
        opportunity_stage,

        ---------- numerics
        {{ dbt.safe_cast('amount_written', dbt.type_numeric()) }} as opportunity_amount,

        ---------- booleans
        opportunity_stage in ('won', 'lost') as is_closed,

        ---------- dates
        cast(created_at as date) as created_date,
        case when opportunity_stage in ('won', 'lost') then close_date end as closed_date,
        case
            when opportunity_stage not in ('won', 'lost') then close_date
        end as expected_close_date,

        ---------- timestamps
        cast(created_at as {{ dbt.type_timestamp() }}) as created_at

    from staged

)

select * from renamed

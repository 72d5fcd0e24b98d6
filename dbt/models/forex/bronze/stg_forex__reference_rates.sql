{#- so few that BigQuery needs no partitions -#}
{{
    config(
        unique_key='reference_rate_id',
        cluster_by=['currency_code'] if target.type == 'bigquery' else none,
    )
}}

with

source as (

    select * from {{ source('forex', 'reference_rates') }}

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
        rate_date,

        ---------- timestamps
        _loaded_at as loaded_at

    from source

)

select * from renamed

{% if is_incremental() %}

    where loaded_at >= {{ load_watermark(this, 'loaded_at') }}

{% endif %}

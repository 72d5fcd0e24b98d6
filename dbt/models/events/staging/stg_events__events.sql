{# numbers: as text, amounts and times differ from warehouse to warehouse #}
{% set cents = dbt.cast('amount * 100', dbt.type_int()) %}
{% set occurred = epoch_milliseconds('occurred_at') %}

with

source as (

    select * from {{ source('events', 'raw_events') }}

    -- crawlers are nobody
    where coalesce(device, '') <> 'bot'

),

cleaned as (

    select

        *,
        case lower(replace(trim(event_name), '_', ''))
            when 'pageview' then 'page_view'
            when 'signup' then 'sign_up'
            else lower(trim(event_name))
        end as event_kind,
        -- a clock may be fast; nothing happens after it was received
        case when occurred_at > sent_at then sent_at else occurred_at end as corrected_at

    from source

),

renamed as (

    select

        ---------- ids
        event_id,
        {{ surrogate_key(['anonymous_id', 'event_kind', 'path', cents, occurred]) }}
            as event_key,
        anonymous_id,
        user_id,

        ---------- text
        event_kind,
        coalesce(source, 'direct') as traffic_source,
        device as device_kind,
        path as page_path,
        _source_file as source_file,

        ---------- numerics
        amount as purchase_amount,

        ---------- booleans
        {{ dbt.datediff('corrected_at', 'sent_at', 'minute') }} >= 60 as is_late,

        ---------- dates
        cast(corrected_at as date) as activity_date,

        ---------- timestamps
        corrected_at as occurred_at,
        sent_at as received_at,
        _loaded_at as loaded_at

    from cleaned

)

select * from renamed

with

source as (

    select * from {{ source('events', 'raw_events') }}

),

aggregated as (

    select

        _source_file as object_name,
        count(*) as event_count,
        min(occurred_at) as first_occurred_at,
        max(occurred_at) as last_occurred_at,
        max(_loaded_at) as loaded_at

    from source

    group by _source_file

)

select

    ---------- ids
    object_name,

    ---------- numerics
    event_count,

    ---------- timestamps
    first_occurred_at,
    last_occurred_at,
    loaded_at

from aggregated

{#- the object that has started the run; without one, any -#}
{% set object_name = (var('uri', none) or '').split('/') | last %}

with

objects as (

    select * from {{ ref('stg_events__objects') }}

    {% if object_name %}

        where object_name = '{{ object_name | replace("'", "''") }}'

    {% endif %}

)

select count(*) as object_count

from objects

having count(*) = 0

-- Days that no clock should have named yet when their spans came, and when the last of them came: their retention counts from that day,
-- since their own date may be centuries away.
create table telemetry_future_days (
    day date primary key,
    received_on date not null
);

insert into telemetry_future_days (day, received_on)
select distinct (started_at at time zone 'UTC')::date, (now() at time zone 'UTC')::date
from ml_observability_spans_stray
where started_at > now() + interval '2 days';

# Two images, neither with a compiler, PyTorch or root:
#   docker build --target server -t sgmft-server .       the HTTP API, the page and every plain command
#   docker build --target predict -t sgmft-predict .     `sgmft predict` with an exported model
# docs/containers.md has the commands to run them.
ARG BASE=python:3.12-slim

FROM ${BASE} AS base
ENV PATH=/opt/sgmft/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SGMFT_CACHE=/cache
RUN useradd --uid 10001 --create-home sgmft && install --directory --owner sgmft /cache /data
WORKDIR /data

FROM base AS source
WORKDIR /source
RUN python3 -m venv /opt/sgmft
COPY pyproject.toml constraints.txt requirements-onnx.txt README.md LICENSE ./
COPY src src

FROM source AS build-server
ARG EXTRAS=""
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM source AS build-predict
RUN pip install --no-cache-dir --constraint constraints.txt --requirement requirements-onnx.txt \
    && pip install --no-cache-dir --no-deps .

FROM base AS predict
COPY --from=build-predict /opt/sgmft /opt/sgmft
USER 10001
ENTRYPOINT ["sgmft"]
CMD ["--help"]

FROM base AS server
COPY --from=build-server /opt/sgmft /opt/sgmft
USER 10001
VOLUME /cache
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s --timeout=5s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/ready')"]
ENTRYPOINT ["sgmft"]
CMD ["serve", "/model", "--host", "0.0.0.0"]

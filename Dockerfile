# llmrec serve, without torch. With the language model: --build-arg REQUIREMENTS=serve-llm
FROM python:3.11.13-slim-bookworm AS build
ARG REQUIREMENTS=serve
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/constraints.txt .ci/serve-requirements.txt .ci/serve-llm-requirements.txt .ci/
COPY prompts prompts
COPY llmrec llmrec
RUN python -m venv /opt/llmrec \
    && /opt/llmrec/bin/pip install --no-cache-dir --no-deps --require-hashes \
        -r ".ci/${REQUIREMENTS}-requirements.txt" \
    && PIP_CONSTRAINT=.ci/constraints.txt /opt/llmrec/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11.13-slim-bookworm
# LightGBM is linked against OpenMP. The release of Debian is pinned, and its fixes are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /data --create-home llmrec
COPY --from=build /opt/llmrec /opt/llmrec
ENV PATH=/opt/llmrec/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
# The database lies here, unless LLMREC_DATABASE names another.
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# Listening beyond the container needs LLMREC_API_KEY.
ENTRYPOINT ["llmrec"]
CMD ["serve", "/shop/engine", "--data", "/shop/log", "--host", "0.0.0.0"]

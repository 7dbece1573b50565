"""Templates with the variables, tools and dates of well-known families, abbreviated.

Each does what its family's does with a chat, in as few words as that takes; the marks are the
family's own where that matters, and ChatML's else.
"""

from __future__ import annotations

from typing import Final

_OPEN: Final = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"

# Tools in the first user turn, a date that may be given, `{% generation %}` around answers.
LLAMA_31: Final = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}"
    "{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}"
    "{%- endif %}{%- if not tools is defined %}{%- set tools = none %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set system = '' %}{%- endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n"
    "{%- if tools is not none and not tools_in_user_message %}"
    "{%- for t in tools %}{{- t | tojson(indent=4) }}\n\n{%- endfor %}{%- endif %}"
    "{{- system }}<|eot_id|>"
    "{%- for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{%- if loop.first and tools is not none and tools_in_user_message %}"
    "{%- for t in tools %}{{- t | tojson }}\n\n{%- endfor %}{%- endif %}"
    "{%- if m['role'] == 'assistant' %}{% generation %}{{- m['content'] | trim }}<|eot_id|>"
    "{% endgeneration %}{%- else %}{{- m['content'] | trim }}<|eot_id|>{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{%- endif %}"
)
# A switch that closes an empty thought, and thoughts given apart.
QWEN_3: Final = (
    "{%- if tools %}<|im_start|>system\n{%- for t in tools %}\n{{ t | tojson }}{%- endfor %}"
    "<|im_end|>\n{%- endif %}"
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}"
    "{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' %}{%- set said, thought = m.content, '' %}"
    "{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}"
    "{%- elif '</think>' in said %}"
    "{%- set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}"
    "{%- set said = said.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last and thought %}"
    "{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') }}"
    "{%- else %}{{- said }}{%- endif %}"
    "{%- else %}{{- m.content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endfor %}"
    + _OPEN[: -len("{%- endif %}")]
    + "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
# The system turn goes before the first user's words; content may be text or parts.
GEMMA_3: Final = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- if messages[0]['content'] is string -%}"
    "{%- set prefix = messages[0]['content'] + '\n\n' -%}"
    "{%- else -%}{%- set prefix = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}"
    "{%- set turns = messages[1:] -%}"
    "{%- else -%}{%- set prefix = '' -%}{%- set turns = messages -%}{%- endif -%}"
    "{%- for m in turns -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ prefix if loop.first else '' }}"
    "{%- if m['content'] is string -%}{{ m['content'] | trim }}{%- else -%}"
    "{%- for part in m['content'] -%}{{ part['text'] | trim }}{%- endfor -%}{%- endif -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
# Its own system prompt with two dates, marks for the system, and tools before the last question.
MISTRAL_SMALL: Final = (
    "{%- set today = strftime_now('%Y-%m-%d') %}{{- bos_token }}"
    "{%- if messages[0]['role'] == 'system' %}{%- set said = messages[0]['content'] %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set said = 'The date is ' + today %}"
    "{%- set turns = messages %}{%- endif %}[SYSTEM_PROMPT]{{ said }}[/SYSTEM_PROMPT]"
    "{%- for m in turns %}{%- if m['role'] == 'user' %}"
    "{%- if tools and loop.last %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]"
    "{%- endif %}[INST]{{ m['content'] }}[/INST]"
    "{%- elif m['role'] == 'system' %}[SYSTEM_PROMPT]{{ m['content'] }}[/SYSTEM_PROMPT]"
    "{%- elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
    "{%- else %}{{ raise_exception('Only user, system and assistant roles') }}"
    "{%- endif %}{%- endfor %}"
)
# Says how much to think in words, keeps thoughts in a channel of their own, calls system developer.
GPT_OSS: Final = (
    "{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}{%- endif %}"
    "<|start|>system<|message|>You are ChatGPT.\nCurrent date: {{ strftime_now('%Y-%m-%d') }}\n\n"
    "Reasoning: {{ reasoning_effort }}\n<|end|>"
    "{%- if messages[0].role in ('developer', 'system') %}"
    "{%- set said = messages[0].content %}{%- set turns = messages[1:] %}"
    "{%- else %}{%- set said = '' %}{%- set turns = messages %}{%- endif %}"
    "{%- if said or tools %}<|start|>developer<|message|>"
    "{%- if said %}# Instructions\n\n{{ said }}\n\n{%- endif %}"
    "{%- if tools %}# Tools\n\n{%- for t in tools %}type {{ t.function.name }} = "
    "{{ t.function.parameters | tojson }};\n{%- endfor %}{%- endif %}<|end|>{%- endif %}"
    "{%- for m in turns %}{%- if m.role == 'assistant' %}"
    "{%- if loop.last and not add_generation_prompt and 'thinking' in m %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{%- endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{%- else %}<|start|>user<|message|>{{ m.content }}<|end|>{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant{%- endif %}"
)
PHI_4: Final = (
    "{% for m in messages %}{% if m['role'] in ('system', 'user') %}"
    "<|im_start|>{{ m['role'] }}<|im_sep|>{{ m['content'] }}<|im_end|>"
    "{% elif m['role'] == 'assistant' %}{{ '<|im_start|>assistant<|im_sep|>' }}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
# A system prompt made of date, tools and a switch that asks for thoughts.
GRANITE_33: Final = (
    "{%- if messages[0]['role'] == 'system' %}{%- set said = messages[0]['content'] %}"
    "{%- set turns = messages[1:] %}{%- else %}"
    "{%- set said = 'Today is ' + strftime_now('%B %d, %Y') + '. You are Granite.' %}"
    "{%- if tools %}{%- set said = said + ' You may use tools.' %}{%- endif %}"
    "{%- if thinking %}{%- set said = said + ' Write your thoughts between <think></think>.' %}"
    "{%- endif %}{%- set turns = messages %}{%- endif %}"
    "<|start_of_role|>system<|end_of_role|>{{ said }}</s>\n"
    "{%- if tools %}<|start_of_role|>available_tools<|end_of_role|>{{ tools | tojson(indent=4) }}"
    "</s>\n{%- endif %}"
    "{%- for m in turns %}<|start_of_role|>{{ m['role'] }}<|end_of_role|>{{ m['content'] }}</s>\n"
    "{%- endfor %}{%- if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>"
    "{%- endif %}"
)
# A switch by variable, or by a word in the system prompt; `/no_think` closes an empty thought.
SMOLLM_3: Final = (
    "{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{%- endif %}"
    "{%- set mode = '/think' if enable_thinking else '/no_think' %}"
    "{%- if messages[0].role == 'system' %}{%- set said = messages[0].content %}"
    "{%- if '/no_think' in said %}{%- set mode = '/no_think' %}{%- endif %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set said = 'You are SmolLM.' %}"
    "{%- set turns = messages %}{%- endif %}"
    "<|im_start|>system\nDate: {{ strftime_now('%d %B %Y') }}\nMode: {{ mode }}\n\n"
    "{{ said.replace('/no_think', '').rstrip() }}"
    "{%- if xml_tools %}\n{%- for t in xml_tools %}{{ t }}\n{%- endfor %}{%- endif %}"
    "{{ '<|im_end|>\n' }}"
    "{%- for m in turns %}{%- if m.role == 'assistant' and mode == '/no_think' %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}"
    "{%- else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{%- endif %}{%- endif %}"
)
# A switch called `thinking`; the thought is opened or closed in the prompt.
DEEPSEEK_31: Final = (
    "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
    "{% set ns = namespace(said='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.said = ns.said + m['content'] %}{% endif %}{% endfor %}{{ bos_token + ns.said }}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}"
    "{{ '<|Assistant|></think>' + m['content'].split('</think>')[-1] + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|>' }}"
    "{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
OLMO_2: Final = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ '<|system|>\n' + m['content'] + '\n' }}{% elif m['role'] == 'user' %}"
    "{{ '<|user|>\n' + m['content'] + '\n' }}{% elif m['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' + m['content'] + (eos_token if loop.last else eos_token + '\n') }}"
    "{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    "{% endfor %}"
)
_COMMAND_TURN: Final = (
    "{% for m in messages %}<|START|><|{{ m['role'] | upper }}|>{{ m['content'].strip() }}<|END|>"
    "{% endfor %}{% if add_generation_prompt %}<|START|><|CHATBOT|>{% endif %}"
)
# Three under names, one for tools and one for documents.
COMMAND_R: Final = {
    "default": "{{ bos_token }}" + _COMMAND_TURN,
    "tool_use": "{{ bos_token }}## Available Tools{% for t in tools %}\n"
    "def {{ t.function.name }}: {{ t.function.description }}{% endfor %}\n" + _COMMAND_TURN,
    "rag": "{{ bos_token }}<results>{% if documents %}{{ documents | length }}{% endif %}"
    "{{ citation_mode }}</results>" + _COMMAND_TURN,
}

WITH_VARIABLES: Final = {
    "llama-3.1": LLAMA_31,
    "qwen-3": QWEN_3,
    "gemma-3": GEMMA_3,
    "mistral-small": MISTRAL_SMALL,
    "gpt-oss": GPT_OSS,
    "phi-4": PHI_4,
    "granite-3.3": GRANITE_33,
    "smollm-3": SMOLLM_3,
    "deepseek-3.1": DEEPSEEK_31,
    "olmo-2": OLMO_2,
}
